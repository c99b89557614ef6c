"""How long do exports take, and how fast are their files, side by side with what people use today?"""
