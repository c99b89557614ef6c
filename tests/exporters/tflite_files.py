"""TFLite files in plain LiteRT, and what of them its XNNPACK delegate leaves out."""

from __future__ import annotations

from pathlib import Path

from ai_edge_litert.interpreter import Interpreter


def opened(path: Path) -> Interpreter:
    """In plain LiteRT, ready to run."""
    interpreter = Interpreter(model_path=str(path), num_threads=1)
    interpreter.allocate_tensors()
    return interpreter


def left_out(interpreter: Interpreter) -> list[str]:
    """Operators that are not part of the one delegated graph, going from the input to the output."""
    operators = interpreter._get_ops_details()
    delegates = [operator for operator in operators if operator["op_name"] == "DELEGATE"]
    if len(delegates) != 1:
        return [f"{len(delegates)} delegates"]
    takes = set(delegates[0]["inputs"].tolist())
    plain = [operator for operator in operators if operator["op_name"] != "DELEGATE"]
    feeding = [each["op_name"] for each in plain if takes & set(each["outputs"].tolist())]
    ends = {detail["index"] for detail in interpreter.get_output_details()}
    starts = {detail["index"] for detail in interpreter.get_input_details()}
    feeding += [] if ends <= set(delegates[0]["outputs"].tolist()) else ["what makes the output"]
    return feeding if starts <= takes else [*feeding, "what takes the input"]
