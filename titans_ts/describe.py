"""A forecaster in a few lines: what it was told, what it learned, where it stands."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from html import escape
from typing import TYPE_CHECKING, Any

from titans_ts.time_axis import show

if TYPE_CHECKING:
    from titans_ts.forecaster import TitansForecaster

__all__ = ["describe_html", "fitted_facts"]

_MOST_NAMES = 12


def fitted_facts(forecaster: TitansForecaster) -> dict[str, Any]:
    """What a fitted forecaster learned and where it stands, as JSON takes it.

    Parameters
    ----------
    forecaster : TitansForecaster
        Fitted.

    Returns
    -------
    dict
        ``channels, series, rows_seen, last_time, context_length, logarithms, linear_part,
        seasonal_memory, network, covariates``. ``logarithms`` is None without any, else the
        ``channels`` that have them and ``gain``, the share of the squared validation error that
        they save (0: asked for). ``seasonal_memory`` is None where it is not used, else its
        ``season`` in rows and ``gate``, the mean share of the forecast that is recollected.
        ``network`` is None without one, else ``weights, training_steps, gate_fresh, gate_carried,
        memory_carried``. ``covariates`` is None without any, else names by role, ``future_gain``
        and ``past_gain``, the share of the squared validation error that they save (0: not let in),
        and ``static_used``.
    """
    residual, history = forecaster.model_.residual, forecaster.training_history_
    standing, season = forecaster._standing, None
    if residual.recollection is not None and residual.uses_memory:
        gate = round(float(residual.recollection.gate.mean()), 4)
        season = {"season": residual.recollection.memory.season, "gate": gate}
    network = None
    if residual.network is not None:
        network = {
            "weights": sum(weight.numel() for weight in residual.network.parameters()),
            "training_steps": None if history is None else history.steps,
            "gate_fresh": round(float(residual.fresh.gate.mean()), 4),
            "gate_carried": round(float(residual.carried.gate.mean()), 4),
            "memory_carried": residual.uses_memory,
        }
    return {
        "channels": [str(label) for label in forecaster._layout.columns],
        "series": len(standing.streams),
        "rows_seen": sum(stream.rows for stream in standing.streams.values()),
        "last_time": _latest(standing.ends.values()),
        "context_length": forecaster.context_length_,
        "logarithms": _logarithm_facts(forecaster),
        "linear_part": "per channel" if standing.linear.per_channel else "shared",
        "seasonal_memory": season,
        "network": network,
        "covariates": _covariate_facts(forecaster),
    }


def _logarithm_facts(forecaster: TitansForecaster) -> dict[str, Any] | None:
    """Of which channels they are learned, and what that is worth; None without any."""
    domain = forecaster.model_.domain
    if not domain.logarithms:
        return None
    labels = zip(forecaster._layout.columns, domain.columns, strict=True)
    return {
        "channels": [str(label) for label, log in labels if log],
        "gain": round(domain.gain, 4),
    }


def _covariate_facts(forecaster: TitansForecaster) -> dict[str, Any] | None:
    """Names by role, and what they are worth; None without any."""
    layout, covariates = forecaster._layout, forecaster.model_.covariates
    if not layout.roles.covariates:
        return None
    residual = forecaster.model_.residual
    kin = residual.network is not None and residual.network.kin is not None
    return {
        "future": list(layout.future_names),
        "future_gain": round(covariates.future_gain, 4),  # share of the squared validation error
        "past": list(layout.past_names),
        "past_gain": round(covariates.past_gain, 4),
        "static": list(layout.static_names),
        "static_used": kin and residual.streaming.uses_network,
    }


def _latest(times: Iterable[Any]) -> Any:
    """The last of the times; None without a time axis."""
    return max((time for time in times if time is not None), default=None)


def describe_html(forecaster: TitansForecaster) -> str:
    """Show a forecaster in a notebook: what differs from the defaults, and what it learned.

    Parameters
    ----------
    forecaster : TitansForecaster
        Fitted or not.

    Returns
    -------
    str
        Two tables without styles or scripts of their own; all that came from the user is escaped.
    """
    defaults = inspect.signature(type(forecaster)).parameters
    told = {
        name: repr(value)
        for name, value in forecaster.get_params().items()
        if repr(value) != repr(defaults[name].default)
    }
    name = escape(type(forecaster).__name__)
    if not forecaster.__sklearn_is_fitted__():
        return f"<p><b>{name}</b>, not fitted</p>" + _table("parameters", told)
    facts = fitted_facts(forecaster)
    channels, network = facts["channels"], facts["network"]
    few = ", ".join(channels[:_MOST_NAMES]) + ", ..." * (len(channels) > _MOST_NAMES)
    learned = {
        "channels": f"{len(channels)}: {few}",
        "rows seen": f"{facts['rows_seen']:,}",
        "last time": "none" if facts["last_time"] is None else show(facts["last_time"]),
        "linear part": facts["linear_part"],
        "seasonal memory": "not used",
        "network": "none",
    }
    if (season := facts["seasonal_memory"]) is not None:
        told_of = f"of {season['season']} rows, {season['gate']:.0%} of the forecast"
        learned["seasonal memory"] = told_of
    if (logarithms := facts["logarithms"]) is not None:
        gain = logarithms["gain"]
        saved = f"save {gain:.1%} of the squared validation error" if gain else "asked for"
        learned["logarithms"] = f"of {len(logarithms['channels'])} channels, {saved}"
    if network is not None:
        learned["network"] = f"{network['weights']:,} weights"
        if network["training_steps"] is not None:  # a loaded one does not tell
            learned["network"] += f", {network['training_steps']} training steps"
        gates = f"{network['gate_fresh']:.0%} from the look-back alone"
        if network["memory_carried"]:
            gates += f", {network['gate_carried']:.0%} with the memory carried along"
        learned["share of its correction"] = gates
    if (covariates := facts["covariates"]) is not None:
        for role in ("future", "past"):
            if covariates[role]:
                gain = covariates[f"{role}_gain"]
                learned[f"{role} covariates"] = (
                    f"save {gain:.1%} of the squared validation error" if gain else "not let in"
                )
        if covariates["static"]:
            used = "in the network" if covariates["static_used"] else "not used"
            learned["static covariates"] = used
    head = f"<p><b>{name}</b>, fitted</p>"
    return head + _table("parameters", told) + _table("learned", learned)


def _table(title: str, facts: dict[str, str]) -> str:
    rows = "".join(
        f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in facts.items()
    )
    body = rows or "<tr><td>all as by default</td></tr>"
    return f"<table><caption>{escape(title)}</caption>{body}</table>"
