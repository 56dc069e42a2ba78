"""The code of single `rklu` commands, such as fetch, doctor, plan, verify, unlearn and attack."""
