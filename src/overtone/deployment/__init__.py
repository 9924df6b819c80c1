"""Networks made ready to run somewhere: exact rewrites, runtimes, exports and their proof.

The function is `overtone.deploy`; the package is not called so, because importing a submodule `overtone.deploy` would
put the module in the place of the function.
"""
