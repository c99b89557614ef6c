"""Results of `verify` as a JUnit report, which every CI system shows.

One suite an artifact and runtime; its cases are the golden images, each further check and each further size of
images. The elements and attributes are those of the schema that Jenkins publishes (junit-10.xsd): what failed has
`<failure>`, what was left out `<skipped>`, and the metrics are the suite's properties.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any
from xml.etree import ElementTree

from vit_deploy.core.documents import Record

GOLDEN_CASE = "golden images"
NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # XML 1.0, production 2


def junit(results: Sequence[Record]) -> str:
    """The report as XML, for records of `records.verification`."""
    suites = [_suite(result) for result in results]
    counts = ("tests", "failures")
    totals = {name: str(sum(int(suite.attrib[name]) for suite in suites)) for name in counts}
    seconds = sum(float(suite.attrib["time"]) for suite in suites)
    root = ElementTree.Element(
        "testsuites", {"name": "vit-deploy verify", **totals, "errors": "0", "time": f"{seconds:.3f}"}
    )
    root.extend(suites)
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _suite(result: Record) -> ElementTree.Element:
    name = _text(f"{result['artifact']} in {result['runtime']} ({result['provider']})")
    checks: list[dict[str, Any]] = [*result["checks"], *map(_of_size, result.get("sizes", []))]
    failed = [check for check in checks if not check["ok"]]
    own = result["golden_failures"]
    skipped = [check for check in checks if check["ok"] and check["message"]]
    attributes = {
        "name": name,
        "tests": str(1 + len(checks)),
        "failures": str(len(failed) + bool(own)),
        "errors": "0",
        "skipped": str(len(skipped)),
        "time": f"{result['seconds']:.3f}",
    }
    suite = ElementTree.Element("testsuite", attributes)
    properties = ElementTree.SubElement(suite, "properties")
    for kind in ("metrics", "tolerance"):
        for metric, value in result[kind].items():
            if value is not None:
                label = metric if kind == "metrics" else f"tolerance.{metric}"
                ElementTree.SubElement(properties, "property", {"name": label, "value": f"{value:.9g}"})
    classname = _text(f"vit_deploy.verify.{result['format']}-{result['precision']}")
    case = ElementTree.SubElement(suite, "testcase", {"classname": classname, "name": GOLDEN_CASE})
    if own:
        _add(case, "failure", "; ".join(own), result["verdict"])
    for check in checks:
        case = ElementTree.SubElement(suite, "testcase", {"classname": classname, "name": _text(check["name"])})
        if not check["ok"]:
            _add(case, "failure", check["message"], "different")
        elif check["message"]:
            _add(case, "skipped", check["message"])
    return suite


def _of_size(found: Record) -> dict[str, Any]:
    """The parity at one more size of images, as a check."""
    height, width = found["image_size"]
    failed = "" if found["ok"] else "; ".join(found["failures"])
    return {"name": f"images of {height}x{width}", "ok": found["ok"], "message": failed}


def _add(case: ElementTree.Element, tag: str, message: str, kind: str = "") -> None:
    attributes = {"message": _text(message)} | ({"type": kind} if kind else {})
    ElementTree.SubElement(case, tag, attributes)


def _text(text: str) -> str:
    return NOT_XML.sub("\N{REPLACEMENT CHARACTER}", text)
