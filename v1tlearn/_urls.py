"""Where the project lives on the web: the only place in which these addresses stand.

Plain constants and no imports, so that ``setup.py`` and ``docs/conf.py`` can read the file alone.
"""

REPOSITORY_URL = "https://github.com/v1tlearn/v1tlearn"
DOCS_URL = "https://v1tlearn.github.io/v1tlearn"  # of the site's root, without a slash at the end
