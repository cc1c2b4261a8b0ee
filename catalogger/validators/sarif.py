"""A report in the form that code-scanning pages take: SARIF 2.1.0
(https://docs.oasis-open.org/sarif/sarif/v2.1.0/sarif-v2.1.0.html).
"""

from __future__ import annotations

import re
from importlib import metadata
from typing import Any

from catalogger.validators.rules import Finding, Report, rules

_FILE = re.compile(r"[\w.-]+(/[\w.-]+)*\.\w+|MLmodel")
_SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"


def sarif(report: Report, subject: str) -> dict[str, Any]:
    """One run over the subject (a source or a model), its rules, results, and what was not checked."""
    known = rules()
    codes = sorted({*report.ran, *report.not_checked, *(f.code for f in report.findings)})
    driver = {
        "name": "catalogger",
        "version": metadata.version("catalogger"),
        "rules": [
            {
                "id": code,
                "shortDescription": {"text": known[code].title},
                "fullDescription": {"text": known[code].why or known[code].title},
                "help": {"text": known[code].fix},
                "defaultConfiguration": {"level": known[code].severity},
            }
            for code in codes
        ],
    }
    unchecked = [
        {"level": "note", "message": {"text": f"not checked: {why}"}, "associatedRule": {"id": code}}
        for code, why in report.not_checked.items()
    ]
    invocation = {"executionSuccessful": True, "toolExecutionNotifications": unchecked}
    results = [_result(finding, subject, codes.index(finding.code)) for finding in report.findings]
    run = {"tool": {"driver": driver}, "invocations": [invocation], "results": results}
    return {"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}


def _result(finding: Finding, subject: str, index: int) -> dict[str, Any]:
    """A subject that is a file is a place in the source; any other (a tensor, a name) is a logical one."""
    place: dict[str, Any]
    if _FILE.fullmatch(finding.subject):
        place = {"physicalLocation": {"artifactLocation": {"uri": finding.subject}}}
    else:
        place = {"logicalLocations": [{"name": finding.subject}]}
    return {
        "ruleId": finding.code,
        "ruleIndex": index,
        "level": finding.severity,
        "message": {"text": f"{subject}: {finding.subject} {finding.message}. {finding.fix}"},
        "locations": [place],
    }
