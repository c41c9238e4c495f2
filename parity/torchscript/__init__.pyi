from .model import TracedModel as TracedModel
from .model import load as load
from .runner import Runner as Runner
from .trace import export as export
from .untying import untie as untie
from .verdicts import Verdict as Verdict
from .verdicts import table as table
from .verdicts import verdict as verdict
