"""The model card of a student: ``README.md`` beside its weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kdsearch.student.student import CARD, MODEL, VALIDATION, Card
from kdsearch.texts import in_unit

SETS = {
    "validation": "validation",
    "test": "test",
    "test_new_patients": "test, new patients alone",
}
COLUMNS = {"AUC": "roc_auc", "AP": "average_precision"}
AT_THRESHOLD = {"sensitivity": "sensitivity", "specificity": "specificity", "PPV": "ppv"}
TEXT = """\
---
library_name: kdsearch
tags:
- anomaly-detection
- knowledge-distillation
---

# Anomaly detector: {method}, distilled

Gives each beat a score, higher is more abnormal, and flags beats that reach the threshold. A
student network, trained on normal beats and by a teacher, from a search by kdsearch {version}.

## Use

```python
import kdsearch

student = kdsearch.load_student("path/to/this/folder")
student.score(beats)  # (n, {leads}, {length}) -> (n,)
student.flag(beats)  # score >= {threshold:.6g}
```

{input}

## Data

{data}.

## Figures

The test beats were not used for any choice. Sensitivity, specificity and PPV are at the
threshold.

{figures}

## Threshold

{threshold!r}, by the rule {rule} on the validation beats. `{validation}` holds their scores, so
that `student.at("sensitivity=0.95")` can choose another.

## Intended use and limits

{simulated}- For research: no medical device, and not tested as one.
- Right for data like those above, cut in the same way. Try it on beats with known answers \
before it scores others.
- The figures are of one set of data; those of patients or devices that are not in it may be \
lower.

## Files

| file | content |
| --- | --- |
| `{model}` | the weights, with a checksum; loading runs no code |
| `{card}` | settings, preprocessing and threshold |
| `metrics.json` | all figures, those of each class too |
| `{validation}` | scores of the validation beats, and which are abnormal |
"""


def model_card(card: Mapping[str, Any], metrics: Mapping[str, Any]) -> str:
    """Write the model card.

    Args:
        card: The content of ``config.yaml``.
        metrics: The content of ``metrics.json``.

    Returns:
        Markdown, with the metadata that model hubs read at its head.
    """
    known = Card.model_validate(card)
    rule = metrics.get("threshold_rule", "f1")
    if isinstance(rule, Mapping):
        rule = ", ".join(f"{name}={value}" for name, value in rule.items())
    simulated = "- Trained on simulated beats: its scores of real beats mean nothing.\n"
    text = TEXT.format(
        method=known.method,
        version=known.kdsearch,
        leads=known.input.leads,
        length=known.input.length,
        threshold=known.threshold,
        rule=rule,
        input=_input(known),
        data=known.data.description,
        figures=_figures(metrics),
        simulated=simulated if known.data.simulated else "",
        model=MODEL,
        card=CARD,
        validation=VALIDATION,
    )
    return in_unit(text, known.data.unit)


def _input(card: Card) -> str:
    lines = [
        f"Raw beats of {card.input.length} samples and {card.input.leads} "
        f"lead{'s' * (card.input.leads > 1)}, in any unit: {card.input.normalisation}."
    ]
    cutting = card.input.cutting
    if cutting is None:
        lines.append("How they were cut and filtered is not known to kdsearch.")
    else:
        leads = [lead or "any" for lead in cutting.leads]
        low, high = cutting.band_hz
        lines.append(
            f"Cut from recordings at {cutting.sampling_rate_hz:g} Hz, filtered to {low:g} to "
            f"{high:g} Hz, {cutting.samples_before} samples before the R peak; leads: "
            f"{', '.join(leads) or 'any'}. `python -m kdsearch score` cuts WFDB records so."
        )
    if card.input.context == "patient":
        lines.append(
            "All beats of a recording are given at once, with their moments: each is compared "
            "with its patient's own."
        )
    return " ".join(lines)


def _figures(metrics: Mapping[str, Any]) -> str:
    head = ["network", "beats", "number", "abnormal", *COLUMNS, *AT_THRESHOLD]
    rows = [
        [
            network,
            name,
            f"{found['n']:,}",
            f"{found['n_abnormal']:,}",
            *(_figure(found[key]) for key in COLUMNS.values()),
            *(_figure(found["confusion"][key]) for key in AT_THRESHOLD.values()),
        ]
        for network in ("student", "teacher")
        for key, name in SETS.items()
        if (found := metrics.get(network, {}).get(key)) is not None
    ]
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
