"""What does `python -m vit_deploy` do? The same as `vit-deploy`."""

from vit_deploy.cli import main

if __name__ == "__main__":
    main()
