"""recdistill turns large recommender models into small ones that rank nearly as well."""

__version__ = "0.1.0"
