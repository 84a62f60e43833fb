"""Queries tracer's Parquet tables with DuckDB and pandas, and compares the results with the JSON lines.

    check.py FOLDER DOCS TRACER...

FOLDER contains recordings, DOCS the examples to run, and TRACER is the command. The last line of output is the result.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import traceback
from collections import Counter
from pathlib import Path

import duckdb
import pandas as pd
import pyarrow.parquet as pq

TYPES = {
    "run": "UINTEGER",
    "host": "VARCHAR",
    "id": "UBIGINT",
    "told": "UINTEGER",
    "start": "TIMESTAMPTZ_NS",
    "node_name": "VARCHAR",
    "boot_id": "VARCHAR",
    "netns": "UINTEGER",
    "client_ip": "VARCHAR",
    "client_port": "USMALLINT",
    "node_ip": "VARCHAR",
    "node_port": "USMALLINT",
    "syn_seq": "UINTEGER",
    "dnat_source_ip": "VARCHAR",
    "dnat_source_port": "USMALLINT",
    "dnat_destination_ip": "VARCHAR",
    "dnat_destination_port": "USMALLINT",
    "snat_source_ip": "VARCHAR",
    "snat_source_port": "USMALLINT",
    "snat_destination_ip": "VARCHAR",
    "snat_destination_port": "USMALLINT",
    "service": "VARCHAR",
    "dataplane": "VARCHAR",
    "backend_ip": "VARCHAR",
    "backend_port": "USMALLINT",
    "backend_name": "VARCHAR",
    "fate": "VARCHAR",
    "cause": "VARCHAR",
    "inner_cause": "VARCHAR",
    "explanation": "VARCHAR",
    "advice": "VARCHAR",
    "syns": "UINTEGER",
    "synacks": "UINTEGER",
    "connect_ms": "DOUBLE",
    "stall_ms": "DOUBLE",
    "lost_ms": "DOUBLE",
    "attempts": "STRUCT(n UINTEGER, t_ms DOUBLE, cause VARCHAR, inner_cause VARCHAR, explanation VARCHAR, lost_ms DOUBLE)[]",
    "evidence": 'STRUCT("key" VARCHAR, what VARCHAR, "value" VARCHAR, hook VARCHAR)[]',
    "path": "STRUCT(t_ms DOUBLE, hook VARCHAR, dev VARCHAR, netns UINTEGER, cpu USMALLINT, verdict VARCHAR, note VARCHAR)[]",
}


class Tables:
    """The recordings in both formats: `flows` has the last line of each flow, by run and id."""

    def __init__(self, recordings, tracer, folder):
        self.file = str(folder / "node.parquet")
        self.flows = {}
        self.starts = []
        for form, file in [("jsonl", folder / "node.jsonl"), ("parquet", self.file)]:
            command = [*tracer, "export", *recordings, "--to", form, "--output", str(file)]
            subprocess.run(command, check=True)
        for line in (folder / "node.jsonl").read_text().splitlines():
            line = json.loads(line)
            if line["type"] == "start":
                self.starts.append(line)
            elif line["type"] == "flow":
                self.flows[len(self.starts), line["id"]] = line
        self.duckdb = duckdb.connect()
        self.duckdb.sql("SET TimeZone = 'UTC'")

    def query(self, sql):
        return self.duckdb.sql(sql.format(file=self.file)).fetchall()


def same(actual, expected):
    assert actual == expected, f"got {actual!r}, expected {expected!r}"


def types_in_duckdb(tables):
    columns = tables.query("DESCRIBE SELECT * FROM '{file}'")
    same({column[0]: column[1] for column in columns}, TYPES)


def counts_by_fate_in_duckdb(tables):
    actual = tables.query("SELECT fate, count(*) FROM '{file}' GROUP BY fate")
    same(dict(actual), dict(Counter(flow["fate"] for flow in tables.flows.values())))


def counts_by_cause_in_duckdb(tables):
    actual = tables.query("SELECT cause, count(*) FROM '{file}' GROUP BY cause")
    same(dict(actual), dict(Counter(flow["cause"] for flow in tables.flows.values())))


def the_longest_stall_in_duckdb(tables):
    stalls = {key: flow["stall_ms"] for key, flow in tables.flows.items() if flow["stall_ms"] is not None}
    run, number = max(stalls, key=stalls.get)
    actual = tables.query(
        "SELECT run, id, stall_ms, client_ip, client_port FROM '{file}' ORDER BY stall_ms DESC NULLS LAST LIMIT 1"
    )
    client = tables.flows[run, number]["client"]
    same(actual, [(run, number, stalls[run, number], client["ip"], client["port"])])


def steps_in_duckdb(tables):
    steps = [(*key, step) for key, flow in tables.flows.items() for step in flow["path"]]
    actual = tables.query("SELECT run, id, unnest(path) AS step FROM '{file}'")
    same(sorted(actual, key=repr), sorted(steps, key=repr))
    actual = tables.query(
        "SELECT step.hook, count(*) FROM (SELECT unnest(path) AS step FROM '{file}') GROUP BY step.hook"
    )
    same(dict(actual), dict(Counter(step["hook"] for _, _, step in steps)))


def evidence_in_duckdb(tables):
    actual = tables.query("SELECT run, id, unnest(evidence) FROM '{file}'")
    facts = [(*key, fact) for key, flow in tables.flows.items() for fact in flow["evidence"]]
    same(sorted(actual, key=repr), sorted(facts, key=repr))


def times_in_duckdb(tables):
    actual = tables.query("SELECT run, id, epoch_ns(start) FROM '{file}'")
    starts = {(*key, pd.Timestamp(flow["start"]).value) for key, flow in tables.flows.items()}
    same(set(actual), starts)


def metadata_in_duckdb(tables):
    actual = tables.query("SELECT decode(key), decode(value) FROM parquet_kv_metadata('{file}')")
    runs = json.loads(dict(actual)["tracer.runs"])
    for run, start in zip(runs, tables.starts, strict=True):
        same([run["host"], run["kernel"]], [start["host"], start["kernel"]])


def all_values_in_pandas(tables):
    frame = pd.read_parquet(tables.file)
    same(list(frame.columns), list(TYPES))
    same(str(frame.start.dtype), "datetime64[ns, UTC]")
    same([str(frame[name].dtype) for name in ("client_port", "stall_ms")], ["uint16", "float64"])
    same(len(frame), len(tables.flows))
    for row in pq.read_table(tables.file).to_pylist():
        flow = dict(tables.flows[row["run"], row["id"]])
        same(pd.Timestamp(row.pop("start")), pd.Timestamp(flow.pop("start")))
        same(row["host"], tables.starts[row.pop("run") - 1]["host"])
        # With several runs, their lines contain the host too.
        same(row.pop("host"), flow.pop("host"))
        row.pop("told")
        flow.pop("type")
        for end in ("client", "node", "backend"):
            actual = flow.pop(end) or {"ip": None, "port": None, "name": None}
            flow |= {f"{end}_{member}": value for member, value in actual.items()}
        for translated in ("dnat", "snat"):
            ends = flow.pop(translated) or {}
            for end in ("source", "destination"):
                address = ends.get(end) or {"ip": None, "port": None}
                flow |= {f"{translated}_{end}_{member}": value for member, value in address.items()}
        same(row, flow)


def counts_in_pandas(tables):
    frame = pd.read_parquet(tables.file)
    same(frame.fate.value_counts().to_dict(), dict(Counter(flow["fate"] for flow in tables.flows.values())))
    steps = frame.explode("path").path.dropna().map(lambda step: step["hook"])
    expected = Counter(step["hook"] for flow in tables.flows.values() for step in flow["path"])
    same(steps.value_counts().to_dict(), dict(expected))


def examples_of_the_documentation(tables):
    docs = DOCS.read_text()
    before = Path.cwd()
    # The examples read `node.parquet` and `node.jsonl`.
    os.chdir(Path(tables.file).parent)
    try:
        queries = re.findall(r"^```sql\n(.*?)^```", docs, re.S | re.M)
        assert len(queries) >= 2, "no SQL queries found"
        for query in queries:
            for statement in filter(str.strip, query.split(";\n")):
                assert tables.duckdb.sql(statement).fetchall(), statement
        programs = re.findall(r"^```python\n(.*?)^```", docs, re.S | re.M)
        assert programs, "no Python programs found"
        for program in programs:
            exec(program, {})
    finally:
        os.chdir(before)


CHECKS = [
    types_in_duckdb,
    counts_by_fate_in_duckdb,
    counts_by_cause_in_duckdb,
    the_longest_stall_in_duckdb,
    steps_in_duckdb,
    evidence_in_duckdb,
    times_in_duckdb,
    metadata_in_duckdb,
    all_values_in_pandas,
    counts_in_pandas,
    examples_of_the_documentation,
]


def main():
    recordings = sorted(str(path) for path in Path(sys.argv[1]).glob("*.trace"))
    assert recordings, "no recordings found"
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        tables = Tables(recordings, sys.argv[3:], Path(folder))
        assert tables.flows, "no flows found"
        for check in CHECKS:
            try:
                check(tables)
                print(f"passed  {check.__name__}")
            except Exception:
                failed += 1
                print(f"FAILED  {check.__name__}")
                traceback.print_exc(file=sys.stdout)
    print(f"{len(CHECKS) - failed} passed, {failed} failed")
    return int(failed > 0)


DOCS = Path(sys.argv[2])
sys.exit(main())
