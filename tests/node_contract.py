"""What the nodes promise to saved workflows, node_contract.json, and what would break it.

Without pytest: comfy_inside.py runs in the host's interpreter, which need not have it.
"""

import json
from pathlib import Path

CONTRACT = json.loads(Path(__file__).with_suffix(".json").read_text("utf-8"))


def promised_by_schema(schemas) -> dict:
    """What V3 schemas promise to saved workflows, in the form of node_contract.json."""
    kept = ("default", "min", "max", "step", "options")
    return {
        schema.node_id: {
            "inputs": {
                one.id: {
                    "type": str(one.get_io_type()),
                    "required": not one.optional,
                    **{k: v for k in kept if (v := getattr(one, k, None)) is not None},
                }
                for one in schema.inputs
            },
            "outputs": [
                {"type": str(one.get_io_type()), "name": one.display_name} for one in schema.outputs
            ],
        }
        for schema in schemas
    }


def promised_by_server(info: dict) -> dict:
    """The same of what /object_info says."""
    kept = ("default", "min", "max", "step", "options")
    return {
        name: {
            "inputs": {
                one: {
                    "type": spec[0],
                    "required": group == "required",
                    **{k: spec[1][k] for k in kept if k in spec[1]},
                }
                for group in ("required", "optional")
                for one, spec in node["input"].get(group, {}).items()
            },
            "outputs": [
                {"type": kind, "name": title}
                for kind, title in zip(node["output"], node["output_name"], strict=True)
            ],
        }
        for name, node in info.items()
    }


def broken_promises(now: dict, promised: dict = CONTRACT) -> list[str]:
    """What a saved workflow would trip over: nothing that was promised may go or change.

    New nodes, options, outputs behind the others, and optional inputs with a default are welcome.
    """
    broken = []
    for node, old in promised.items():
        if node not in now:
            broken.append(f"{node} is gone")
            continue
        new = now[node]
        for name, spec in old["inputs"].items():
            if name not in new["inputs"]:
                broken.append(f"{node}.{name} is gone")
                continue
            there = new["inputs"][name]
            broken += [
                f"{node}.{name}: {key} was {spec.get(key)}, is {there.get(key)}"
                for key in ("type", "required", "default", "min", "max", "step")
                if spec.get(key) != there.get(key)
            ]
            lost = [o for o in spec.get("options", []) if o not in there.get("options", [])]
            broken += [f"{node}.{name}: no option {option}" for option in lost]
        for name in new["inputs"].keys() - old["inputs"].keys():
            spec = new["inputs"][name]
            if spec["required"] or (
                spec["type"] in ("COMBO", "FLOAT", "INT") and "default" not in spec
            ):
                broken.append(f"{node}.{name} is new, and not optional with a default")
        if new["outputs"][: len(old["outputs"])] != old["outputs"]:
            broken.append(f"{node}: outputs were {old['outputs']}, are {new['outputs']}")
    return broken
