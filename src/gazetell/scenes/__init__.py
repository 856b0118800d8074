"""Scenes: a small generated world whose every picture has a known truth.

Pictures of one to four coloured shapes with captions, questions and boxes, for training and
testing in minutes without a download. Because the truth of each picture is known, a caption can be
judged true or false (``judge``), which no set of reference captions can do.
"""

from .judge import Verdict, judge
from .language import captions
from .make import VERSION, boxes, draw, generate, read_truth
from .questions import Question, questions
from .world import Background, Scene, Thing, sample_scene
