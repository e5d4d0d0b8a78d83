"""The searches on tensors of torch: for a GPU, with the answers of the compiled searches to the last bit.

Matrix products rule out what a proven bound of their rounding allows (`products`); what is left is measured on the
device in float64, and what may be an answer then is measured again on the CPU in the canonical order (`canonical`).
No number that is reported was computed on the device. `where` says which device the searches of a run use.
"""
