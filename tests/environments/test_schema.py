"""What a file of the catalogue may not say, and that the error names file, entry, key and value."""

from __future__ import annotations

from math import inf

import pytest

from everpool.environments import Entry
from everpool.environments.schema import check_unique, normal, read

FULL = {
    "title": "'A thing'",
    "vendor": "'Somebody'",
    "kind": "'proxy'",
    "aliases": "['The Thing', '那个']",
    "text": "'''It cuts\nconnections.'''",
    "idle_cut": "350",
    "idle_range": "[60, 6000]",
    "max_age": "inf",
    "kill": "'rst-next'",
    "sqlstate": "'57P05'",
    "says": "'good bye'",
    "activity": "'packets'",
    "failover": "'cut'",
    "failover_text": "'Ended.'",
    "sleeps_after": "300.5",
    "limits": "'Some.'",
    "advice": "'Ping.'",
    "not_known": "'The rest.'",
    "hosts": "['*.thing.example']",
    "sources": "['https://example.com/doc', 'measured']",
    "date": "'2026-11'",
    "confidence": "'documented'",
}


def written(**changes: str | None) -> str:
    """A file with one entry; ``None`` leaves a key out."""
    keys = {**FULL, **changes}
    lines = [f"{key} = {value}" for key, value in keys.items() if value is not None]
    return "\n".join(["group = 'Things'", "[thing]", *lines])


def only(**changes: str | None) -> Entry:
    (entry,) = read("things.toml", written(**changes))
    return entry


def test_all_of_an_entry():
    entry = only()
    assert entry.name == entry.facts.name == "thing"
    assert entry.group == "Things"
    assert entry.text == "It cuts connections."  # lines are the file's, not the text's
    assert entry.aliases == ("The Thing", "那个")
    assert entry.idle_range == (60, 6000)
    assert entry.facts.idle_cut == 350
    assert entry.facts.max_age == inf
    assert entry.facts.kill == "rst-next"
    assert entry.facts.activity == "packets"
    assert entry.facts.failover == "cut"
    assert entry.facts.sleeps_after == 300.5
    assert entry.sources == ("https://example.com/doc", "measured")


def test_what_is_left_out_is_not_known():
    needed = ("title", "vendor", "kind", "text", "sources", "date", "confidence")
    entry = only(**{key: None for key in FULL if key not in needed})
    facts = entry.facts
    assert facts.idle_cut is facts.max_age is facts.kill is facts.activity is None
    assert facts.failover is facts.sleeps_after is None
    assert entry.hosts == entry.aliases == ()
    assert entry.advice is entry.idle_range is entry.sqlstate is None


@pytest.mark.parametrize(
    "key", ["title", "vendor", "kind", "text", "sources", "date", "confidence"]
)
def test_a_missing_key(key):
    with pytest.raises(ValueError) as error:
        only(**{key: None})
    assert str(error.value) == f"things.toml: [thing] {key}: is missing"


def test_an_unknown_key():
    with pytest.raises(ValueError) as error:
        only(idle_cutt="350")
    assert str(error.value) == "things.toml: [thing] idle_cutt: no such key, with value 350"


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        ("title", "7", "must be a text, not 7"),
        ("text", "'  '", "must be a text, not '  '"),
        ("aliases", "'one'", "must be a list of texts, not 'one'"),
        ("aliases", "[]", "must be a list of texts, not []"),
        ("aliases", "[1]", "must be a text, not [1]"),
        ("kind", "'thing'", "must be one of server, service, proxy"),
        ("kill", "'reset'", "must be one of fin, rst, rst-next, silence, fatal, not 'reset'"),
        ("activity", "'frames'", "must be one of packets, bytes, not 'frames'"),
        ("failover", "true", "must be one of kept, cut, lost, not True"),
        ("confidence", "'sure'", "must be one of documented, source, measured"),
        ("idle_cut", "'350'", "must be a number of seconds, or inf for never, not '350'"),
        ("idle_cut", "0", "must be a number of seconds, or inf for never, not 0"),
        ("idle_cut", "true", "must be a number of seconds, or inf for never, not True"),
        ("max_age", "nan", "must be a number of seconds, or inf for never, not nan"),
        ("max_age", "-1", "must be a number of seconds, or inf for never, not -1"),
        ("idle_range", "60", "must be two numbers of seconds, not 60"),
        ("idle_range", "[60]", "must be two numbers of seconds, not [60]"),
        ("idle_range", "[6000, 60]", "the lesser first, not [6000, 60]"),
        ("idle_range", "[360, 6000]", "[360, 6000] leaves idle_cut out"),
        ("sqlstate", "'57p05'", "must be five digits or capital letters, not '57p05'"),
        ("sqlstate", "57014", "must be five digits or capital letters, not 57014"),
        ("hosts", "['*.Thing.example']", "must be patterns in lower case"),
        ("sources", "['a blog']", "must be URLs, or \"measured\", not ['a blog']"),
        ("sources", "[]", "must be a list of texts, not []"),
        ("date", "2026-11-22", "must be a date in quotes"),
        ("date", "'yesterday'", "must be a date in quotes, such as 2026-11-22, 2026-11 or 2026"),
    ],
)
def test_a_wrong_value(key, value, problem):
    with pytest.raises(ValueError) as error:
        only(**{key: value})
    assert str(error.value).startswith(f"things.toml: [thing] {key}: ")
    assert problem in str(error.value)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[thing]\n", "group must be a text"),
        ("group = 1\n", "group must be a text"),
        ("group = 'Things'\nthing = 1\n", "thing = 1 is no entry"),
        ("group = 'Things'\n[Thing]\n", "[Thing] name: 'Thing' must be lower-case words"),
        ("group = 'Things'\n[thing]\n[thing]\n", "Cannot declare"),
        ("group\n", "things.toml"),
    ],
)
def test_a_file_that_is_none(text, problem):
    with pytest.raises(ValueError) as error:
        read("things.toml", text)
    assert str(error.value).startswith("things.toml: ")
    assert problem in str(error.value)


@pytest.mark.parametrize(
    ("key", "changes", "value"),
    [
        ("name", {"aliases": None, "hosts": None}, "thing"),
        ("aliases", {"aliases": "['THE_thing']", "hosts": None}, "THE_thing"),
        ("aliases", {"aliases": "['Thing']", "hosts": None}, "Thing"),
        ("hosts", {"aliases": None}, "*.thing.example"),
    ],
)
def test_what_is_taken(key, changes, value):
    name = "thing" if key == "name" else "other"
    text = written(**changes).replace("[thing]", f"[{name}]")
    pairs = [("things.toml", only()), ("others.toml", *read("others.toml", text))]
    with pytest.raises(ValueError) as error:
        check_unique(pairs)
    taken = "is taken by [thing] in things.toml"
    assert str(error.value) == f"others.toml: [{name}] {key}: {value!r} {taken}"


def test_an_alias_that_says_nothing_new():
    with pytest.raises(ValueError, match="'THING' is taken by"):
        check_unique([("things.toml", only(aliases="['THING']"))])


def test_names_are_compared_without_what_people_vary():
    assert normal("AWS_nlb ") == normal("aws-NLB") == normal("Aws nlb") == "awsnlb"
    assert normal("阿里云 RDS 数据库代理") == normal("阿里云rds数据库代理")
