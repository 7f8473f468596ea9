"""Callbacks for the trainers that people use; they need the extra ``trainers``.

- `thinned.trainers.lightning` has a callback for Lightning's ``Trainer``,
- `thinned.trainers.transformers` has one for the ``Trainer`` of transformers.

Both are called ``DropoutCallback`` and take the same arguments: those of `thinned.trainers.steps.Dropping`.
"""
