"""What a model is made of, and which of its modules to name as features."""

from graphkd.outline.inputs import example_inputs as example_inputs
from graphkd.outline.inputs import example_rows as example_rows
from graphkd.outline.inputs import example_text as example_text
from graphkd.outline.table import Outline as Outline
from graphkd.outline.table import outline_of as outline_of
from graphkd.outline.table import show_features as show_features
