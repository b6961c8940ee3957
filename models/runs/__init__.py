"""Looking at runs: which lie in a folder (`shelf`), what their logs say (`history`), how several differ (`compare`), their curves
(`curves`), a page to open and a model card (`report`), a page to play with (`explore`), sharing (`push`). A run's folder is only read, also
while somebody trains in it.
"""
