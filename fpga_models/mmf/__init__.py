"""Multi-Mode Fusion training: pure functions and one small loop; knows neither the data set nor who started it."""
