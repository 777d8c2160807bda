"""What is on a server → files that say the same. Pure."""

from collections.abc import Collection, Mapping
from typing import Any

import yaml

from flagd_sdk.ctl.differences import DEFINITION_FIELDS
from flagd_sdk.ctl.gitops.manifests import Json
from flagd_sdk.ctl.gitops.present import Present
from flagd_sdk.ctl.yaml_files import is_read_as_text

SEGMENTS_FOLDER = "segments"


def manifests_of(present: Present, only: Collection[str] = ()) -> dict[str, Json]:
    """Return path of the file → its document; archived flags are not wanted, so not exported.

    Args:
        only: keys of flags; all flags and segments if there are none.
    """
    made: dict[str, Json] = {}
    for key in sorted(present.flags):
        flag = present.flags[key]
        if not flag["archived"] and (not only or key in only):
            made[f"{key}.yaml"] = _flag(flag)
    for key in [] if only else sorted({key for each in present.segments.values() for key in each}):
        environments = {
            environment: _segment(segments[key])
            for environment, segments in present.segments.items()
            if key in segments
        }
        made[f"{SEGMENTS_FOLDER}/{key}.yaml"] = {"segment": key, "environments": environments}
    return made


def _flag(flag: Json) -> Json:
    definition = {name: flag[name] for name in DEFINITION_FIELDS if name != "archived"}
    return {
        "flag": flag["key"],
        "type": flag["type"],
        **{name: value for name, value in definition.items() if value not in ("", [], None)},
        "environments": {
            environment: _configuration(configuration, flag["key"])
            for environment, configuration in flag["configurations"].items()
        },
    }


def _configuration(configuration: Json, flag: str) -> Json:
    rules = [
        {
            "id": rule["id"],
            **({"description": rule["description"]} if rule.get("description") else {}),
            "condition": rule["condition"],
            "serve": _serve(rule["serve"], flag),
        }
        for rule in configuration["rules"]
    ]
    return {
        "enabled": configuration["enabled"],
        "off_variant": configuration["off_variant"],
        "rules": rules,
        "default_serve": _serve(configuration["default_serve"], flag),
        "guard": configuration["guard"],
    }


def _serve(serve: Json, flag: str) -> Json:
    if "split" not in serve:
        return serve
    split = serve["split"]
    usual = {"bucket_by": "targetingKey", "salt": flag}
    unusual = {name: split[name] for name, value in usual.items() if split[name] != value}
    weights = {name: weight for name, weight in split["weights"].items() if weight}
    return {"split": {"weights": weights, **unusual}}


def _segment(segment: Json) -> Json:
    described = {"description": segment["description"]} if segment["description"] else {}
    return {**described, "condition": segment["condition"]}


class _Dumper(yaml.SafeDumper):
    """Writes short mappings and lists on one line, and no aliases.

    Words such as `on` are quoted, so that any reader takes them for text.
    """

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    # Quoted where YAML 1.1 (by the dumper itself) or 1.2 would read something else.
    style = None if is_read_as_text(text) else "'"
    if not text.replace("\n", "").isprintable():
        style = '"'  # escaped: there are more kinds of line ends than readers agree on
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)


def to_yaml(document: Mapping[str, Any]) -> str:
    """Return a document as YAML; the same document is the same text."""
    return yaml.dump(
        document,
        Dumper=_Dumper,
        sort_keys=False,
        allow_unicode=True,
        default_flow_style=None,
        width=100,
    )
