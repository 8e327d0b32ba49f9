"""What methods and victims are built from: nothing here knows about datasets or artefacts."""

NORMS = ("Linf", "L2")
