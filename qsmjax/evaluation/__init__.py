"""Figures of merit.

- `metrics`: nrmse, nrmse_detrend, psnr, hfen, ssim, xsim, correlation; `scores` computes all of them
- `calcification`: moment and streaks of a calcification
- `plausibility`: is the map as expected: residual field, left background, high-pass filters, sign
- `roi`: means and standard deviations of regions, and how linear they are in the truth's
- `statistics`: paired tests, Holm's correction, regression, limits of agreement
- `guards`: warnings about wrong units, sign, filtered phase, left background
- `moments`: the averages over a mask beneath
"""
