"""One interactive page about a run: its plans, graphs and numbers on the same few samples, from step to step."""

from graphkd.inspection.page import write_page as write_page
