"""The fields of Flagger's and Argo Rollouts' objects that `deploy/` uses.

Written by hand from docs/gitbook of fluxcd/flagger and docs/ of argoproj/argo-rollouts: their whole
schemas come with the tools. A field that is not here is a fault, so that a mistyped one is found.
"""

from collections.abc import Mapping
from typing import Any

Schema = Mapping[str, Any]

_TEXT: Schema = {"type": "string", "minLength": 1}
_COUNT: Schema = {"type": "integer", "minimum": 0}
_DURATION: Schema = {"type": "string", "pattern": r"^[0-9]+(ms|s|m|h)$"}
_TEXTS: Schema = {"type": "object", "additionalProperties": {"type": "string"}}


def _object(required: str = "", **properties: Schema) -> Schema:
    return {
        "type": "object",
        "additionalProperties": False,
        "required": required.split(),
        "properties": properties,
    }


def _list(items: Schema) -> Schema:
    return {"type": "array", "minItems": 1, "items": items}


def _kind(api: str, kind: str, spec: Schema) -> Schema:
    return _object(
        "apiVersion kind metadata spec",
        apiVersion={"const": api},
        kind={"const": kind},
        metadata=_object("name", name=_TEXT, namespace=_TEXT),
        spec=spec,
    )


_METRIC_TEMPLATE = _object(
    "provider query",
    provider=_object("type address", type={"const": "prometheus"}, address=_TEXT),
    query=_TEXT,
)
_RANGE = _object("", min={"type": "number"}, max={"type": "number"})
_WEBHOOK = _object(
    "name type url",
    name=_TEXT,
    type={
        "enum": [
            "confirm-rollout",
            "pre-rollout",
            "rollout",
            "confirm-traffic-increase",
            "confirm-promotion",
            "post-rollout",
            "rollback",
            "event",
        ]
    },
    url={"type": "string", "pattern": "^http://"},
    timeout=_DURATION,
    muteAlert={"type": "boolean"},
    metadata=_TEXTS,
)
_CANARY = _object(
    "targetRef service analysis",
    targetRef=_object("apiVersion kind name", apiVersion=_TEXT, kind=_TEXT, name=_TEXT),
    service=_object("port", port=_COUNT, targetPort=_COUNT),
    progressDeadlineSeconds=_COUNT,
    analysis=_object(
        "interval threshold",
        interval=_DURATION,
        threshold=_COUNT,
        maxWeight=_COUNT,
        stepWeight=_COUNT,
        metrics=_list(
            _object(
                "name interval",
                name=_TEXT,
                templateRef=_object("name", name=_TEXT, namespace=_TEXT),
                interval=_DURATION,
                thresholdRange=_RANGE,
                templateVariables=_TEXTS,
            )
        ),
        webhooks=_list(_WEBHOOK),
    ),
)
_SECRET_KEY = _object("secretKeyRef", secretKeyRef=_object("name key", name=_TEXT, key=_TEXT))
_ARGUMENTS = _list(_object("name", name=_TEXT, value={"type": "string"}, valueFrom=_SECRET_KEY))
_ANALYSIS_TEMPLATE = _object(
    "metrics",
    args=_ARGUMENTS,
    metrics=_list(
        _object(
            "name provider",
            name=_TEXT,
            interval=_DURATION,
            count=_COUNT,
            successCondition=_TEXT,
            failureCondition=_TEXT,
            failureLimit=_COUNT,
            inconclusiveLimit=_COUNT,
            consecutiveErrorLimit=_COUNT,
            provider={
                "oneOf": [
                    _object(
                        "web",
                        web=_object(
                            "url",
                            url=_TEXT,
                            timeoutSeconds=_COUNT,
                            headers=_list(_object("key value", key=_TEXT, value=_TEXT)),
                            jsonPath=_TEXT,
                        ),
                    ),
                    _object(
                        "prometheus",
                        prometheus=_object("address query", address=_TEXT, query=_TEXT),
                    ),
                ]
            },
        )
    ),
)
_TEMPLATES = _list(_object("templateName", templateName=_TEXT))
_STEPS = _list(
    {
        "oneOf": [
            _object("setWeight", setWeight={"type": "integer", "minimum": 0, "maximum": 100}),
            _object("pause", pause=_object("", duration=_DURATION)),
            _object(
                "analysis", analysis=_object("templates", templates=_TEMPLATES, args=_ARGUMENTS)
            ),
        ]
    }
)
_ROLLOUT = _object(
    "selector template strategy",
    replicas=_COUNT,
    selector=_object("matchLabels", matchLabels=_TEXTS),
    template={"type": "object"},
    strategy=_object(
        "canary",
        canary=_object(
            "steps",
            analysis=_object(
                "templates", templates=_TEMPLATES, startingStep=_COUNT, args=_ARGUMENTS
            ),
            steps=_STEPS,
        ),
    ),
)

# Of docs/api-reference of prometheus-operator/prometheus-operator.
_SERVICE_MONITOR = _object(
    "apiVersion kind metadata spec",
    apiVersion={"const": "monitoring.coreos.com/v1"},
    kind={"const": "ServiceMonitor"},
    metadata=_object("name", name=_TEXT, namespace=_TEXT, labels=_TEXTS),
    spec=_object(
        "selector endpoints",
        jobLabel=_TEXT,
        selector=_object("matchLabels", matchLabels=_TEXTS),
        endpoints=_list(
            _object(
                "port",
                port=_TEXT,
                path=_TEXT,
                interval=_DURATION,
                authorization=_object(
                    "credentials", credentials=_object("name key", name=_TEXT, key=_TEXT)
                ),
                relabelings=_list(
                    _object(
                        "action",
                        action={"enum": ["replace", "keep", "drop", "labelmap"]},
                        targetLabel=_TEXT,
                        replacement=_TEXT,
                    )
                ),
            )
        ),
    ),
)

SCHEMAS: Mapping[str, Schema] = {
    "ServiceMonitor": _SERVICE_MONITOR,
    "MetricTemplate": _kind("flagger.app/v1beta1", "MetricTemplate", _METRIC_TEMPLATE),
    "Canary": _kind("flagger.app/v1beta1", "Canary", _CANARY),
    "AnalysisTemplate": _kind("argoproj.io/v1alpha1", "AnalysisTemplate", _ANALYSIS_TEMPLATE),
    "Rollout": _kind("argoproj.io/v1alpha1", "Rollout", _ROLLOUT),
}
