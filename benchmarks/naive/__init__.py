"""The networks in their published formulation, as plain modules: what our speed is measured against.

Written from the description of the architectures, in the simplest PyTorch that computes them: NCHW throughout, one
module for each operation, nothing fused, folded or laid out for a machine. The state dicts have the published keys and
shapes, so that one set of weights goes into both, and `proved_pair` refuses to give a pair whose outputs differ.
"""

from naive.pairs import NAMES, naive_net, proved_pair

__all__ = ["NAMES", "naive_net", "proved_pair"]
