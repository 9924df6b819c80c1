"""The loop that trains any task: steps, schedule, checkpoints, log. It never says what is being learnt."""
