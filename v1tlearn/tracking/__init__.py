"""Files that tell how a training goes, and what ran: beside the log, for those who look later."""

from v1tlearn.tracking.csv_log import CSVLog
from v1tlearn.tracking.run_folder import RunFolder
from v1tlearn.tracking.tensorboard_log import TensorBoardLog

__all__ = ["CSVLog", "RunFolder", "TensorBoardLog"]
