"""What an app's Live Activities decode, read from its Swift source. Needs ``apns-live[contracts]``.

``Contract`` reads the source and checks states. This package has no I/O besides reading the source.
"""

from .contract import Checker, Contract, StateType, Verdict

__all__ = ["Checker", "Contract", "StateType", "Verdict"]
