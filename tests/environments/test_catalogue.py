"""The catalogue itself: that what it says is whole, is found, and makes settings that fit."""

from __future__ import annotations

import subprocess
import sys
from importlib.resources import files
from math import inf

import pytest

from everpool import environments
from everpool.core.policy import build
from everpool.environments import Environment, UnknownEnvironment

ALL = list(environments.entries().values())
by_name = pytest.mark.parametrize("entry", ALL, ids=lambda entry: entry.name)


def test_every_file_counts():
    folder = files("everpool.environments")
    groups = [each for each in folder.iterdir() if each.name.endswith(".toml")]
    assert len({entry.group for entry in ALL}) == len(groups) == 11
    assert len(ALL) == 79


def test_it_is_one_and_cannot_be_changed():
    entries = environments.entries()
    assert entries is environments.entries()
    with pytest.raises(TypeError):
        entries["mine"] = ALL[0]  # type: ignore[index]
    with pytest.raises(AttributeError):
        ALL[0].name = "mine"  # type: ignore[misc]


def test_importing_reads_nothing():
    code = (
        "import sys, everpool; from everpool import environments;"
        "assert not {'tomllib', 'psycopg', 'psycopg_pool'} & set(sys.modules);"
        "environments.resolve(None); assert 'tomllib' not in sys.modules;"
        "environments.find('neon'); assert 'tomllib' in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@by_name
def test_texts_are_sentences(entry):
    for text in (entry.text, entry.failover_text, entry.limits, entry.advice, entry.not_known):
        assert text is None or text[-1] in ".)", text
    # Nothing known of a cut and nothing said of that either would be a gap.
    facts = entry.facts
    if facts.idle_cut is None and entry.kind in ("server", "service", "proxy", "pooler"):
        assert entry.not_known


@by_name
def test_settings_stay_below_what_cuts(entry):
    facts = entry.facts
    policy = build(environment=(facts,))
    if facts.sleeps_after is not None:
        assert policy.keepalive == inf  # a ping would keep it awake
        assert policy.min_size == 0
        assert policy.max_idle < min(facts.sleeps_after, facts.idle_cut or inf)
    elif facts.idle_cut is not None and facts.idle_cut < inf:
        assert policy.keepalive < facts.idle_cut  # jitter only shortens it
        assert policy.keepalives_idle < facts.idle_cut
    else:
        assert policy.keepalive <= 45
    if facts.max_age is not None:
        assert policy.max_lifetime < facts.max_age
    assert not policy.contradictions


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("aws-nlb", "aws-nlb"),
        ("AWS NLB", "aws-nlb"),
        ("aws_nlb", "aws-nlb"),
        ("Network Load Balancer", "aws-nlb"),
        ("网络负载均衡器", "aws-nlb"),
        ("rds proxy", "aws-rds-proxy"),
        ("RDS-PROXY", "aws-rds-proxy"),
        ("阿里云RDS数据库代理", "alibaba-rds-proxy"),
        ("阿里云 RDS 数据库代理", "alibaba-rds-proxy"),
        ("传统型负载均衡 CLB", "alibaba-clb"),
        ("NAT 网关", "alibaba-nat-gateway"),
        ("PolarDB", "alibaba-polardb"),
        ("postgres", "postgresql-idle-session-timeout"),
        ("Fly.io", "fly-postgres"),
    ],
)
def test_find(name, found):
    assert environments.find(name).name == found


@by_name
def test_an_entry_is_found_by_all_its_names(entry):
    for name in (entry.name, entry.name.replace("-", " ").upper(), *entry.aliases):
        assert environments.find(name) is entry


def test_a_name_of_none():
    with pytest.raises(UnknownEnvironment) as error:
        environments.find("aws-nbl")
    assert isinstance(error.value, ValueError)
    assert str(error.value) == (
        "no environment is called 'aws-nbl': did you mean aws-nlb or aws-nlb-tls?"
        ' The command "everpool environments" lists all'
    )
    with pytest.raises(UnknownEnvironment) as error:
        environments.find("qqqqqq")
    assert "'qqqqqq'. The command" in str(error.value)


def test_resolve():
    nlb = environments.find("aws-nlb").facts
    mine = Environment(idle_cut=60, name="mine")
    assert environments.resolve(None) == ()
    assert environments.resolve("AWS NLB") == (nlb,)
    assert environments.resolve(mine) == (mine,)
    assert environments.resolve(["aws-nlb", mine]) == (nlb, mine)
    assert environments.resolve((mine,)) == (mine,)
    assert environments.resolve([]) == ()


@pytest.mark.parametrize("value", [7, b"aws-nlb", {"aws-nlb": 1}, [None], [["aws-nlb"]], object])
def test_what_is_no_environment(value):
    with pytest.raises(TypeError, match="must be a name, an Environment or a sequence") as error:
        environments.resolve(value)
    wrong = value[0] if isinstance(value, list) else value
    assert str(error.value).endswith(f"not {type(wrong).__name__}")


def test_resolve_tells_of_unknown_names_in_a_list():
    with pytest.raises(UnknownEnvironment, match="'nowhere'"):
        environments.resolve(["aws-nlb", "nowhere"])


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("shop.proxy-abcdefghijkl.eu-west-1.rds.amazonaws.com", "aws-rds-proxy"),
        ("shop.proxy-abcdefghijkl.cn-north-1.rds.amazonaws.com.cn", "aws-rds-proxy"),
        ("shop.cluster-abcdefghijkl.eu-west-1.rds.amazonaws.com", "aws-aurora"),
        ("shop.cluster-ro-abcdefghijkl.eu-west-1.rds.amazonaws.com", "aws-aurora"),
        ("db-0123456789abcdef.elb.eu-west-1.amazonaws.com", "aws-nlb"),
        ("ep-cool-1234-pooler.eu-central-1.aws.neon.tech", "neon"),
        ("EP-COOL-1234.EU-CENTRAL-1.AWS.NEON.TECH.", "neon"),
        ("aws-0-eu-west-1.pooler.supabase.com", "supabase-pooler"),
        ("shop.postgres.database.azure.com", "azure-postgresql"),
        ("shop.postgres.database.chinacloudapi.cn", "azure-postgresql"),
        ("pgm-bp1.pg.rds.aliyuncs.com", "alibaba-rds"),
        ("pc-bp1.pg.polardb.rds.aliyuncs.com", "alibaba-polardb"),
        ("gp-bp1-master.gpdb.rds.aliyuncs.com", "alibaba-analyticdb"),
        ("0123456789ab.xyz.europe-west1.sql.goog", "google-cloud-sql"),
        ("pgbouncer.abc.flympg.net", "fly-postgres"),
        ("shop-do-user-1.b.db.ondigitalocean.com", "digitalocean-postgresql"),
        ("pooled.db.prisma.io", "prisma-postgres"),
        ("shop-1.postgresql.a.osc-fr1.scalingo-dbs.com", "scalingo-postgresql"),
        ("eu-central-1.pg.psdb.cloud", "planetscale-postgres"),
        ("web-1234.eu-west-1.elb.amazonaws.com", None),  # the other kinds of load balancers
        ("shop.abcdefghijkl.eu-west-1.rds.amazonaws.com", None),
        ("db.prisma.io", None),
        ("neon.tech.example", None),
        ("localhost", None),
        ("10.0.0.7", None),
        ("/run/postgresql", None),
        ("", None),
    ],
)
def test_what_a_host_name_gives_away(host, name):
    entry = environments.hinted_by(host)
    assert (entry and entry.name) == name


def test_each_pattern_has_a_host_of_its_own():
    for entry in ALL:
        for pattern in entry.hosts:
            assert environments.hinted_by(pattern.replace("*", "x")) is entry
