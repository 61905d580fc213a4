"""The tables of the pages of results, printed from the CSV files in `experiments/results/`.

    python -m experiments.tables

A test compares them with `docs/results.md` and `docs/results-beatgan.md`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
from scipy import stats

from experiments.table import RESULTS, read
from kdsearch.metrics.statistics import Interval, judge, mean_and_sd, paired_by_seed

NETWORKS = ("teacher", "distilled", "plain")
Row = dict[str, str]
Rows = list[Row]
FIGURES = ("test_auc", "test_ap")
AUCS = ("val_auc", *FIGURES)
CLASSES = ("test_auc_S", "test_auc_V", "test_auc_F")
NO_DISTILLATION, PLAIN_SCORE, UNTAUGHT = "no distillation", "reconstruction error", "none"


def tables(folder: Path = RESULTS) -> dict[str, str]:
    """Every table by its name, in Markdown."""
    rows = {path.stem: read(path) for path in sorted(folder.glob("*.csv"))}
    made: dict[str, Callable[[dict[str, Rows]], str]] = {
        "fold": _fold,
        "patients": _patients,
        "comparisons": _comparisons,
        "memories": _memories,
        "late beats": _late_beats,
        "rhythms": _rhythms,
        "new patients": _new_patients,
        "new patients, differences": _new_differences,
        "new patients, records": _new_records,
        "records": _records,
        "published size": _published_size,
        "targets": _targets,
        "searches": _searches,
        "scores": _scores,
        "external": _external,
    }
    return {name: make(rows) for name, make in made.items()}


def _fold(rows: dict[str, Rows]) -> str:
    published = ("BeatGAN, distilled, as published", *_cost(rows, "fold", "BeatGAN, width 32"))
    lines = [
        (*published, "0.9474", "0.9148", "", "", ""),
        *_memory_lines(rows, "fold", [0, 4]),
        *_student_lines(rows["students"], "fold"),
    ]
    head = ("scored by", "parameters", "multiply-adds", "test AUC", "test AP", "S", "V", "F")
    return _table(head, lines)


def _patients(rows: dict[str, Rows]) -> str:
    alone = [
        *_memory_lines(rows, "inter_patient", [0, 5]),
        *_student_lines(rows["students"], "inter_patient"),
    ]
    beside = [
        *_memory_lines(rows, "context", [0, 2]),
        *_student_lines(rows["students"], "context"),
    ]
    lines = [
        *(("the beat", *line) for line in alone),
        *(("and the patient's own", *line) for line in beside),
    ]
    head = ("sees", "scored by", "parameters", "multiply-adds", "test AUC", "test AP")
    return _table((*head, "S", "V", "F"), lines)


def _external(rows: dict[str, Rows]) -> str:
    lines = [
        (
            row["task"],
            row["space"],
            f"{int(row['train'])} / {int(row['test'])}",
            *(f"{float(row[k]):.3f} ± {float(row[f'{k}_sd']):.3f}" for k in NETWORKS),
            f"{float(row['baseline_auc']):.3f}",
            *(_difference_of(row, name) for name in ("plain", "teacher", "baseline")),
        )
        for row in rows["external"]
    ]
    head = ("task", "space", "train / test", "teacher", "distilled", "not distilled")
    less = ("less not distilled", "less teacher", "less baseline")
    return _table((*head, "baseline", *less), lines)


def _difference_of(row: Row, name: str) -> str:
    keys = (f"less_{name}", f"less_{name}_low", f"less_{name}_high")
    estimate, low, high = (f"{float(row[key]):+.3f}" for key in keys)
    return f"{estimate} ({low} to {high})"


def wilcoxon(rows: Rows, name: str) -> tuple[float, int, float]:
    """Over tasks: median difference, in how many it is above 0, Wilcoxon's p-value."""
    differences = np.array([float(row[f"less_{name}"]) for row in rows])
    above = int(np.count_nonzero(differences > 0))
    p_value = float(stats.wilcoxon(differences).pvalue)
    return float(np.median(differences)), above, p_value


def _memory_lines(rows: dict[str, Rows], split: str, chosen: list[int]) -> list[Sequence[str]]:
    every = [row for row in rows["memories"] if row["split"] == split]
    return [
        (
            f"memory: {row['memory']}",
            *_cost(rows, split, row["memory"]),
            *(f"{float(row[key]):.4f}" for key in FIGURES),
            *(f"{float(row[key]):.3f}" for key in CLASSES),
        )
        for row in (every[index] for index in chosen)
    ]


def _student_lines(rows: Rows, split: str) -> list[Sequence[str]]:
    groups = _grouped((row for row in rows if row["split"] == split), "recipe")
    return [
        (
            f"student: {name}",
            *(f"{int(group[0][key]):,}" for key in ("parameters", "operations")),
            *(_spread(group, key) for key in FIGURES),
            *(f"{np.mean(_floats(group, key)):.3f}" for key in CLASSES),
        )
        for name, group in groups.items()
    ]


def _cost(rows: dict[str, Rows], split: str, network: str) -> tuple[str, str]:
    for row in rows["costs"]:
        if (row["split"], row["network"]) == (split, network):
            return f"{int(row['parameters']):,}", f"{int(row['operations']):,}"
    return "", ""


def _comparisons(rows: dict[str, Rows]) -> str:
    lines = []
    for row in rows["comparisons"]:
        shift = 0.5 if row["second"] == "chance" else 0.0
        sign = "" if shift else "+"
        estimate, low, high = (float(row[key]) + shift for key in ("difference", "low", "high"))
        lines.append(
            (
                {"fold": "fold 0", "inter_patient": "the beat"}.get(
                    row["split"], "and the patient's own"
                ),
                f"student: {row['first']}",
                "its AUC itself" if shift else f"less {row['second']}",
                f"{estimate:{sign}.4f}",
                f"{low:{sign}.4f} to {high:{sign}.4f}",
            )
        )
    return _table(("split or sees", "", "", "estimate", "95 % interval"), lines)


def _memories(rows: dict[str, Rows]) -> str:
    by_split = {
        split: {row["memory"]: row for row in group}
        for split, group in _grouped(rows["memories"], "split").items()
    }
    lines = []
    for name, row in by_split["fold"].items():
        figures = [
            f"{float(found[key]):.4f}"
            for found in (row, by_split["inter_patient"][name])
            for key in ("val_auc", "test_auc")
        ]
        lines.append((name, *figures))
    for name, row in by_split["context"].items():
        figures = [f"{float(row[key]):.4f}" for key in ("val_auc", "test_auc")]
        lines.append((f"beside the patient's own: {name}", "", "", *figures))
    head = ("memory", "fold 0: val AUC", "test AUC", "new patients: val AUC", "test AUC")
    return _table(head, lines)


def _late_beats(rows: dict[str, Rows]) -> str:
    by_setting: dict[tuple[str, str], dict[str, str]] = {}
    for row in rows["context"]:
        found = f"{float(row['auc']):.4f} ({float(row['worst_fold']):.4f})"
        by_setting.setdefault((row["quantile"], row["spread"]), {})[row["records"]] = found
    columns = ("DS1, five folds", "DS1, thinned", "DS2, the test set")
    lines = [
        (*setting, *(found.get(column, "") for column in columns))
        for setting, found in by_setting.items()
    ]
    return _table(("quantile", "spread", *columns), lines)


def _rhythms(rows: dict[str, Rows]) -> str:
    lines = [
        (
            f"{row['beats']} on each side" if row["beats"] != "0" else "first five minutes",
            row["quantile"],
            f"{float(row['auc']):.4f} ({float(row['worst_fold']):.4f})",
            f"{float(row['ap']):.4f}",
        )
        for row in rows["patient_rhythms"]
    ]
    return _table(("beats", "quantile", "DS1, five folds: AUC", "AP"), lines)


def _new_patients(rows: dict[str, Rows]) -> str:
    folds = {row["detector"]: row for row in rows["patient_thresholds"]}
    rates = ("sensitivity", "specificity", "ppv")
    lines = [
        (
            name,
            f"{float(folds[name]['auc']):.4f}",
            *(_spread(group, key) for key in ("auc", "ap")),
            *(f"{np.mean(_floats(group, f'auc_{label}')):.3f}" for label in "SVF"),
            *(f"{np.mean(_floats(group, key)):.3f}" for key in rates),
        )
        for name, group in _grouped(rows["patient_test"], "detector").items()
    ]
    head = ("scored by", "DS1, all folds: AUC", "test AUC", "test AP", "S", "V", "F")
    return _table((*head, *rates[:2], "PPV"), lines)


def _new_differences(rows: dict[str, Rows]) -> str:
    lines = [
        (
            f"{row['first']} less {row['second']}",
            f"{float(row['difference']):+.4f}",
            f"{float(row['low']):+.4f} to {float(row['high']):+.4f}",
        )
        for row in rows["patient_comparisons"]
    ]
    return _table(("test AUC", "estimate", "95 % interval"), lines)


def _new_records(rows: dict[str, Rows]) -> str:
    keys = ("auc", "sensitivity", "specificity", "ppv")
    before, chosen = (
        _grouped(rows["patient_records"], "detector")[name]
        for name in ("memory, as before", "memory")
    )
    lines = [
        (
            row["record"],
            row["beats"],
            row["abnormal"],
            *(f"{float(row[key]):.3f}" if row[key] else "" for key in keys),
            f"{float(other['auc']):.3f}" if other["auc"] else "",
        )
        for row, other in zip(before, chosen, strict=True)
    ]
    head = ("record", "beats", "abnormal", "AUC", "sensitivity", "specificity", "PPV")
    return _table((*head, "AUC, as chosen"), lines)


def _records(rows: dict[str, Rows]) -> str:
    lines = [
        (
            row["record"],
            row["class"],
            row["beats"],
            f"{float(row['auc']):.3f}",
            row["own_normals"],
            f"{float(row['auc_own']):.3f}",
        )
        for row in rows["records"]
        if row["split"] == "context" and int(row["beats"]) >= 30
    ]
    head = ("record", "class", "beats", "AUC", "its normal beats", "AUC among them")
    return _table(head, lines)


def _targets(rows: dict[str, Rows]) -> str:
    lines = []
    for budget, every in _grouped(rows["published"], "budget").items():
        groups = _grouped(
            ({**r, "recipe": _judged_by(r)} for r in every if r["recipe"] != "teacher"),
            "recipe",
        )
        for name, group in groups.items():
            against = _paired(group, groups[NO_DISTILLATION], "test_auc")
            lines.append(
                (
                    budget,
                    name,
                    str(len(group)),
                    *(_spread(group, key) for key in ("val_auc", *FIGURES)),
                    "" if name == NO_DISTILLATION else f"{against}, {judge(against)}",
                )
            )
    head = ("budget", "target", "seeds", "val AUC", "test AUC", "test AP")
    return _table((*head, "test AUC less no distillation"), lines)


def _judged_by(row: Row) -> str:
    """One training is two recipes if it is judged by two scores."""
    return row["recipe"] + ("" if row["score"] == "plain" else f"; {row['score']} score")


def _searches(rows: dict[str, Rows]) -> str:
    students = [row for row in rows["confirmations"] if row["role"] == "candidate"]
    found = _grouped(students, "arm")
    lines = []
    for row in rows["searches"]:
        arm = row["arm"]
        tuned = _paired(found[arm], found[UNTAUGHT], "test_auc")
        lines.append(
            (
                arm,
                f"{float(row['search_val_auc']):.4f}",
                *(_spread(found[arm], key) for key in ("val_auc", *FIGURES)),
                _own_control(row),
                "" if arm == UNTAUGHT else f"{tuned}, {judge(tuned)}",
            )
        )
    head = ("target", "val AUC in the search", "val AUC", "test AUC", "test AP")
    return _table((*head, "less alpha = 0", "less no distillation, tuned"), lines)


def _own_control(row: Row) -> str:
    if not row["control_estimate"]:
        return ""
    estimate, low, high = (float(row[f"control_{key}"]) for key in ("estimate", "low", "high"))
    return f"{Interval(estimate, low, high)}, {row['control_judgement']}"


def _scores(rows: dict[str, Rows]) -> str:
    groups = {
        arm: _grouped(every, "score") for arm, every in _grouped(rows["scores"], "arm").items()
    }
    none = groups["no network"]["Mahalanobis distance"]
    cost = f"{int(none[0]['operations']):,}"
    test_auc = _spread(none, "test_auc")
    lines: list[Sequence[str]] = [
        ("Mahalanobis distance, no network", cost, test_auc, "", "", "")
    ]
    for score, of_none in groups["none"].items():
        cells: list[str] = []
        for arm in ("none", "neighbours"):
            group, plain = groups[arm][score], groups[arm][PLAIN_SCORE]
            less = "" if score == PLAIN_SCORE else str(_paired(group, plain, "test_auc"))
            cells += [_spread(group, "test_auc"), less]
        lines.append((score, f"{int(of_none[0]['operations']):,}", *cells))
    head = ("score", "multiply-adds", "none: test AUC", "less the plain score")
    return _table((*head, "neighbours: test AUC", "less the plain score"), lines)


def _published_size(rows: dict[str, Rows]) -> str:
    lines: list[Sequence[str]] = [
        (row["seed"], row["best_epoch"], *(f"{float(row[key]):.4f}" for key in AUCS))
        for row in rows["published_size"]
    ]
    lines.append(("mean", "", *(_spread(rows["published_size"], key) for key in AUCS)))
    return _table(("seed", "best epoch", "val AUC", "test AUC", "test AP"), lines)


def _grouped(rows: Iterable[Row], key: str) -> dict[str, Rows]:
    groups: dict[str, Rows] = {}
    for row in rows:
        groups.setdefault(row[key], []).append(row)
    return groups


def _paired(rows: Rows, others: Rows, key: str) -> Interval:
    """Difference of two groups over the seeds that both have; it covers seeds alone."""
    of, against = ({row["seed"]: float(row[key]) for row in group} for group in (rows, others))
    seeds = sorted(of.keys() & against.keys())
    return paired_by_seed([of[s] for s in seeds], [against[s] for s in seeds])


def _floats(rows: Rows, key: str) -> list[float]:
    return [float(row[key]) for row in rows]


def _spread(rows: Rows, key: str) -> str:
    mean, sd = mean_and_sd(_floats(rows, key))
    return f"{mean:.4f}" if len(rows) == 1 else f"{mean:.4f} ± {sd:.4f}"


def _table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    cells = [head, ["---"] * len(head), *lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


if __name__ == "__main__":
    for name, table in tables().items():
        print(f"<!-- {name} -->\n\n{table}\n")
