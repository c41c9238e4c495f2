from .declaration import Absence as Absence
from .declaration import Architecture as Architecture
from .declaration import Deviation as Deviation
from .declaration import Floor as Floor
from .declaration import TracedAxis as TracedAxis
