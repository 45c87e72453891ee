"""What lmms-eval finds by the entry point of pyproject.toml: the name of the model and where its class is."""

from lmms_eval.models.registry_v2 import ModelManifest

MANIFEST = ModelManifest("pruned", chat_class_path="experiments.lmms.plugin.Pruned")
