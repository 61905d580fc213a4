"""Texts that are shown and kept: passwords hidden, everything else as it was."""

from __future__ import annotations

import pytest

from kdsearch.errors import UserError
from kdsearch.texts import did_you_mean, in_unit, one_line, printable, redact

SECRETS = {
    "http://user:hunter2@host:5000/x": "http://user:***@host:5000/x",
    "--track mlflow=http://user:hunter2@host: refused": "--track mlflow=http://user:***@host: "
    "refused",
    "http://user:hunter2@part@host": "http://user:***@host",
    "http://user:hunter2/part@host": "http://user:***@host",
    "http://hunter2@host/x": "http://***@host/x",
    "postgresql://user:hunter2@host/db": "postgresql://user:***@host/db",
    "postgresql+psycopg://:hunter2@host/db": "postgresql+psycopg://:***@host/db",
    "no such file: http:/user:hunter2@host": "no such file: http:/user:***@host",
    "no attribute '//user:hunter2@host:1:Class'": "no attribute '//user:***@host:1:Class'",
    "mlflow=user:hunter2@host:5000": "mlflow=user:***@host:5000",
    "pool(host='user:hunter2@host', port=80)": "pool(host='user:***@host', port=80)",
    "postgresql://u@h/d?sslpassword=hunter2&sslmode=require": "postgresql://u@h/d?"
    "sslpassword=***&sslmode=require",
    "s3://b/k?X-Amz-Signature=hunter2&x=1": "s3://b/k?X-Amz-Signature=***&x=1",
    "http://h/?api_key=hunter2": "http://h/?api_key=***",
    "dbname=x password = 'hunter2 and more' host=y": "dbname=x password = *** host=y",
    'connect(password="hunter2", token=hunter2)': "connect(password=***, token=***)",
}
PLAIN = [
    "postgresql://user@host/database",
    "s3://bucket/path",
    "spaces/kd.yaml: space.lr: low must be below high, but low=0.1 and high=0.01",
    "--track wandb: No WandB API key found",
    "unknown key 'token' (did you mean 'taken'?)",
    "12:30 mail someone@example.org",
    "http://host:5000/path and someone@example.org",
    "package.module:Class",
]


@pytest.mark.parametrize(("text", "expected"), SECRETS.items())
def test_secrets_are_hidden(text: str, expected: str):
    assert redact(text) == expected
    assert redact(expected) == expected
    assert str(UserError(text)) == expected


@pytest.mark.parametrize("text", PLAIN)
def test_what_holds_no_secret_stays(text: str):
    assert redact(text) == text


def test_printable_keeps_lines_and_shows_bytes():
    assert printable("a\nb\x1b[0m\r\t\udce9\ud800·é") == "a\nb [0m  \\xe9 ·é"


def test_one_line_is_the_first_that_says_something():
    assert one_line("\n \n KeyError: 'x'\nmore") == "KeyError: 'x'"
    assert one_line("") == ""
    assert one_line("word " * 99) == "word " * 39 + "wo..."


def test_a_hint_names_what_is_near_or_else_all():
    assert did_you_mean("metric", ["retries", "seed"]) == "known: retries, seed"
    assert did_you_mean("temprature", ["temperature", "lr"]) == "did you mean 'temperature'?"
    assert did_you_mean("grace", ["grace_period", "name"]) == "did you mean 'grace_period'?"


@pytest.mark.parametrize(
    ("unit", "text", "expected"),
    [
        ("window", "Beats: a beat of 2 beats", "Windows: a window of 2 windows"),
        ("event", "A beat, a beat's length", "An event, an event's length"),
        ("series", "3 beats, beat 2", "3 series, series 2"),
        ("window", "beats.npz, runs/beats: BeatGAN has beats=3", None),
        ("window", "data.simulated.beats, the class 'beat'", None),
        ("beat", "a beat", None),
    ],
)
def test_another_word_for_beats(unit: str, text: str, expected: str | None):
    assert in_unit(text, unit) == (text if expected is None else expected)
