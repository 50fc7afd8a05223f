"""A study: subjects in several orientations, every method on each of their scans, and what comes of it in figures.

- `scans`: `HeadScan`, one orientation of one subject with all that is known of it
- `cohort`: subjects out of label maps, written as a user would lay out their own
- `subject`: COSMOS and every method on a subject's scans; what is done is a file, and is not done again
- `scores`: a map against its references: figures of merit, regions
- `lesions`, `regularisation`: what becomes of bleeds and calcifications, and of orientations as the weight grows
- `gather`: the files of a study read back as rows
- `tables`: rows to CSV, Markdown and LaTeX
- `results`: all tables and figures of a study

References:
  Yoon et al., NeuroImage 179:199 (2018), doi:10.1016/j.neuroimage.2018.06.030 (QSMnet, whose comparison this is).
"""
