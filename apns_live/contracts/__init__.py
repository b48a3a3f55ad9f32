"""What an app's Live Activities decode, read from its Swift source. Needs ``apns-live[contracts]``.

``Contract`` reads the source and checks states; nothing here sends, waits or asks a clock.
"""

from .contract import Checker, Contract, StateType, Verdict

__all__ = ["Checker", "Contract", "StateType", "Verdict"]
