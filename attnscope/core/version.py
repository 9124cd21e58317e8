"""The version of attnscope, which reports and saved files carry."""

__version__ = "0.1.0"
