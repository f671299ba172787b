SUMMARY = "What leaves the factory: the agent shows its secrets at each boot"
DESCRIPTION = "An example of a production image. What it inherits is what any production image should inherit: it is \
               refused where it carries what lets somebody sign with the manufacturing protection key."

require mpagent-image.inc

inherit mpagent_production_qa

# The root alone, as `mpagent finish` writes it into its partition.
IMAGE_FSTYPES = "ext4"
