from .declaration import Absence as Absence
from .declaration import Architecture as Architecture
from .declaration import Deviation as Deviation
from .declaration import Floor as Floor
from .declaration import Refusal as Refusal
from .declaration import Relations as Relations
from .declaration import Scope as Scope
from .declaration import TracedAxis as TracedAxis
