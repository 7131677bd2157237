"""The stages, the most valuable first: a run that is cut off keeps what it has."""

from kit.stages import caps, cards_costs, clients, conformance, doors, librarys_cost, machine, mps, neighbours, share

ALL = {
    "machine": machine,
    "costs": cards_costs,
    "doors": doors,
    "cap": caps,
    "share": share,
    "cost": librarys_cost,
    "clients": clients,
    "neighbours": neighbours,
    "conformance": conformance,
    "mps": mps,
}
