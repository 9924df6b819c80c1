"""Networks for inference: exact rewrites, runtimes, exports and their verification.

The function is `overtone.deploy`; the package is not called so, because importing a submodule `overtone.deploy` would
put the module in the place of the function.
"""
