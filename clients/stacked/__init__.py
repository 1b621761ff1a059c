"""Many small dense networks worked on side by side: one operation does a step of all of them.

A step of a network of a few thousand weights is nearly all bookkeeping: a dozen operations, each
dearer to call than to carry out. Here the networks of several clients lie in one array per layer,
and the gradient of linear layers with ReLU between them is written out, so that a dozen operations
move all of them. The bits are those of each client's own work: what sums is asked for in the same
order. Whether a stacked matrix product has the bits of single ones hangs on its shape and the
machine, so each shape is tried first, and taken one by one where they differ. What is new in size
is worked out both ways as well; should a bit differ still, that step is not stacked again.

Convolutions gain nothing by it, and neither do wide layers, whose products take the time.

``layers`` says which networks can be stacked, ``passes`` goes through them forward and back,
``stack`` decides; every other module is one step of ``clients.steps`` for many clients at once.
"""
