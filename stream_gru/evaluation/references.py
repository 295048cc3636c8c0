"""Published figures, on the full data sets of their authors."""

from __future__ import annotations

NAB = {  # standard, low FP, low FN; scoreboard of NAB 1.1, github.com/numenta/NAB
    "ARTime": (74.9, 65.1, 80.4),
    "Numenta HTM": (70.1, 63.2, 74.3),
    "CAD OSE": (69.9, 67.0, 73.2),
    "earthgecko Skyline": (58.2, 46.2, 63.8),
    "KNN CAD": (58.0, 43.4, 64.8),
    "Relative Entropy": (54.6, 47.6, 58.8),
    "Random Cut Forest": (51.7, 38.4, 59.8),
    "Twitter ADVec": (47.1, 33.6, 53.5),
    "Windowed Gaussian": (39.6, 20.9, 47.4),
}
NAB_FILES = {  # the names of the same detectors in a file with their scores of each row
    "ARTime": "ARTime",
    "Numenta HTM": "numenta",
    "CAD OSE": "contextOSE",
    "earthgecko Skyline": "earthgeckoSkyline",
    "KNN CAD": "knncad",
    "Relative Entropy": "relativeEntropy",
    "Random Cut Forest": "randomCutForest",
    "Twitter ADVec": "twitterADVec",
    "Windowed Gaussian": "windowedGaussian",
}
SKAB = {  # F1, false alarm rate in %, missing alarm rate in %; leaderboard of github.com/waico/SKAB
    "Conv-AE": (0.78, 13.55, 28.02),
    "MSET": (0.78, 39.73, 14.13),
    "T-squared+Q": (0.76, 26.62, 24.92),
    "LSTM-AE": (0.74, 29.96, 25.92),
    "T-squared": (0.66, 19.21, 42.6),
    "LSTM-VAE": (0.56, 9.13, 55.03),
    "LSTM": (0.54, 12.54, 59.53),
    "Isolation forest": (0.29, 2.56, 82.89),
}
# Mean VUS-PR over the series of all its data sets (Liu and Paparrizos, TSB-AD, 2024): other series and buffers.
TSB_AD = {
    "univariate": {"Sub-PCA": 0.42, "CNN": 0.34, "LSTMAD": 0.33},
    "multivariate": {"CNN": 0.31, "OmniAnomaly": 0.31, "LSTMAD": 0.31},
}
M4 = {  # sMAPE, MASE, OWA over 414 series and steps 1..48; Makridakis et al. 2020
    "ES-RNN (Smyl)": (9.33, 0.89, 0.44),
    "sNaive": (13.9, 1.19, 0.63),
    "RNN benchmark": (14.7, 3.05, 1.04),
}
ETTH1 = {  # MSE, MAE of standardised values, mean over steps 1..96
    "PatchTST (Nie et al. 2023)": (0.370, 0.400),
    "DLinear (Zeng et al. 2023)": (0.375, 0.399),
    "Informer (Zhou et al. 2021)": (0.865, 0.713),
}
