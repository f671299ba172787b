"""OP-TEE over its device node, by ioctl from pure Python (Linux include/uapi/linux/tee.h)."""

from mpagent.hal.optee.calls import Command, ask, ask_built_in, check_node
from mpagent.hal.optee.client import Session, Tee
from mpagent.hal.optee.faults import (
    CallDied,
    Hanging,
    KernelRefused,
    NobodyAnswered,
    NoNode,
    NoPermission,
    OtherTee,
    TeeFailed,
)
from mpagent.hal.optee.records import MemoryIn, MemoryInOut, MemoryOut, NoParam, ValueIn, ValueInOut, ValueOut

__all__ = [
    "CallDied",
    "Command",
    "Hanging",
    "KernelRefused",
    "MemoryIn",
    "MemoryInOut",
    "MemoryOut",
    "NoNode",
    "NoParam",
    "NoPermission",
    "NobodyAnswered",
    "OtherTee",
    "Session",
    "Tee",
    "TeeFailed",
    "ValueIn",
    "ValueInOut",
    "ValueOut",
    "ask",
    "ask_built_in",
    "check_node",
]
