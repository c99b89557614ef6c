"""What does vit-deploy cost and bring, measured side by side with what people use today?"""
