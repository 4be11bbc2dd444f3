"""Errors of data sets.

ModelError
└── DataSetError         a data set cannot be built or read
    ├── ShardError       a shard or index was altered, cut short, or is not one of ours
    ├── EmptySplitError  one side of the split would hold nobody
    └── NoRecordsError   no picture is left after everything that cannot be used
"""

from fpga_models.errors import ModelError


class DataSetError(ModelError):
    """A data set cannot be built or read."""

    code = "data_set_invalid"


class ShardError(DataSetError):
    """A shard or index was altered, cut short, or is not one of ours."""

    code = "shard_corrupt"


class EmptySplitError(DataSetError):
    """One side of the split would hold nobody."""

    code = "split_empty"


class NoRecordsError(DataSetError):
    """No picture is left after everything that cannot be used."""

    code = "no_records"
