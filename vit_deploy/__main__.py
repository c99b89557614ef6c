"""`python -m vit_deploy`, which is `vit-deploy`."""

from vit_deploy.cli import main

if __name__ == "__main__":
    main()
