"""Progress that remembers."""

from thinned.lab.reporting.progress_bars import Progress


class Recorder(Progress):
    """Remembers the epochs at which runs began, the notes, and the states in which runs ended."""

    def __init__(self):
        self.began, self.notes, self.ended = [], [], []

    def begin(self, name, epochs, done):
        self.began.append(done)

    def note(self, text):
        self.notes.append(text)

    def end(self, run):
        self.ended.append(run.status)
