"""Features and logits of a frozen teacher, computed once and then read from files.

A cache is a folder with one ``.npy`` file per feature, of shape (views, samples, ...), and ``cache.json``, which says
what it was made of. A *view* is one version of a sample: data without augmentation have one, data with a fixed number
of seeded augmentations have as many. Data that are augmented anew in every epoch have none, and no cache.
"""

from graphkd.cache.build import build_cache as build_cache
from graphkd.cache.fingerprint import made_of as made_of
from graphkd.cache.store import TeacherCache as TeacherCache
