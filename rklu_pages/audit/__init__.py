"""An audit of the paper's printed numbers: which values are possible, do they agree, what can they show?"""
