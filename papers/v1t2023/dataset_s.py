"""
Redo the paper's tables on data set S: from the zips of Sensorium 2022 to tables with one command.

``python -m papers.v1t2023.dataset_s --data FOLDER`` fits the models of Li et al. 2023, "V1T:
large-scale mouse V1 response prediction using a Vision Transformer" (TMLR), to mice A to E.
FOLDER holds their zips, or folders, as `v1tlearn.fetch_sensorium2022` or a browser left them.
``--quick`` shows the same on small simulated recordings in about a minute.
"""

from papers.v1t2023.jobs import main

if __name__ == "__main__":
    main("S", __doc__.strip().splitlines()[0])
