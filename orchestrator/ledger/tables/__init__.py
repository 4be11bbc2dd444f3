"""The ledger's tables, one module for each group of them; whoever imports one knows them all."""

from importlib import import_module
from pkgutil import iter_modules

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")
